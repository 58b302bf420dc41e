"""Development tools of the project: code generation, documentation, web assets, the demo tour."""
