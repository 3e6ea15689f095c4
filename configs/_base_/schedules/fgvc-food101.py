_base_ = '_fgvc.py'
