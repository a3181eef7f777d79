"""What it costs: time and memory of draws, searches, studies and recommendations."""
