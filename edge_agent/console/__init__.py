"""What a console program needs: settings, exit codes, logging, atomic files."""
