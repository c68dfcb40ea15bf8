"""What proposes the next architecture: one ask/tell face, several ways."""
