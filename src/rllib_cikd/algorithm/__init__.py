"""The paper in torch and numpy: who acts, who teaches, what is learned. Imports no Ray."""
