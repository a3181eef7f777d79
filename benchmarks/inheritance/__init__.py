"""What do starts from trained weights reach, beside fresh ones?"""
