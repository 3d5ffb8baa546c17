"""Entry points for servers: settings in, running application out."""
