//! Records for the DNS server and for proxies, out of services.
