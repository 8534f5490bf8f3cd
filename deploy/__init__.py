"""How the project is run and shipped: `make run`, the image's install step, openapi.yaml."""
