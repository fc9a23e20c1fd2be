"""A site's private authority: who belongs to the site, what each may do, and what stands on each card."""
