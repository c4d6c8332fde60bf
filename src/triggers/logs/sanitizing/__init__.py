"""What a task says, made safe to store: bounded, plain, and without secrets."""
