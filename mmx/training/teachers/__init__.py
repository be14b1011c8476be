"""Networks that others trained on much more data: frozen, and in training only. Running mmx needs none of them."""
