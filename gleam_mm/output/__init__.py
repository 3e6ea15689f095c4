"""How results are shown, whoever shows them: figures, tables, and text made safe for a medium."""
