"""The Hydra tree, reached as ``pkg://fedpref.configs``. YAML names only what differs from a default."""

if __name__ == "configs":
    raise ImportError("the configuration tree is fedpref.configs")
