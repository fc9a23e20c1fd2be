"""What a device does with the card's settings when it starts: standard library only, so that it starts fast."""
