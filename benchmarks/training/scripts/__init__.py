"""Scripts as a user of each library would write them; none imports our packages."""
