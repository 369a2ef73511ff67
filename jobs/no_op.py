"""Does nothing: spark-submit resolves the packages it is given before it runs this."""
