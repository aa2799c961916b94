"""The glue between an operator and the generated bindings: only in a component."""
