"""A page in a browser without a screen: its picture and its sound, for web egress and template pages."""
