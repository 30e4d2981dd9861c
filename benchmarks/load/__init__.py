"""The load: many subscribers in processes of their own, a publisher here, and what came of it as numbers."""
