"""What DVC and git keep of a project: which files, when they are finished, and what makes none run again."""
