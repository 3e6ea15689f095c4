"""``python -m gleam_mm_cli``."""

from gleam_mm_cli.command import main

if __name__ == '__main__':
    main()
