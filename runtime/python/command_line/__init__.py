"""The `clipstep` command: its subcommands, options, output and exit codes. Programs that use clipstep need none of it."""
