"""What is checked of manifests and artifacts before anything uses them; each file has the checks of one thing."""
