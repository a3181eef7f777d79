"""Does choosing help where training is no single loss: adversaries, agents, several tasks, diffusion, contrast?"""
