"""What a person types: the ``replisome`` command and what its subcommands do."""
