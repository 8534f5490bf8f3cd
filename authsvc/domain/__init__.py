"""Keys and tokens: who may have which, until when. No HTTP; the session and the clock are parameters."""
