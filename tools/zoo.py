"""``gleam-mm zoo``, from a checkout."""

from gleam_mm_cli.command import run

if __name__ == '__main__':
    run('zoo')
