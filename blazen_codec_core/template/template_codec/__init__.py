"""The codec template for blazen-codec."""
