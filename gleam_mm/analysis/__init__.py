"""What a trained method does inside of its backbone: numbers as JSON, and figures."""
