mod answers;
mod sockets;
mod upstream;
