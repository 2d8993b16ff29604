"""What a recurrence can be rewritten into, each exact: the form in which it can be run, and back."""
