//! Proxies as they come and go: sessions, bootstrap, ADS, registration, insights.
