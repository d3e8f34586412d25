mod probe;
mod shared_pool;
