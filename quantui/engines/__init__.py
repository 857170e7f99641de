"""What each engine is made of and can do: data and pure functions, and the workers it runs."""
