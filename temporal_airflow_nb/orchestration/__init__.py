"""The Temporal worker with its workflows and activities, and the dispatcher that starts workflows."""
