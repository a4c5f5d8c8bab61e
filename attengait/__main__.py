"""`python -m attengait` is the `attengait` command."""

from attengait.cli.start import main

if __name__ == "__main__":
    main()
