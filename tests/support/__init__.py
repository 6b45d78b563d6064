"""Networks, references and helpers that several tests share."""
