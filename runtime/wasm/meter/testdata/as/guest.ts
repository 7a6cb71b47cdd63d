// The AssemblyScript guest of the tests: small loops, loop-free recursion, and a bulk operation.

export function fib(n: i32): i64 {
  return n < 2 ? <i64>n : fib(n - 1) + fib(n - 2);
}

export function arith(n: i32): i64 {
  let x: i64 = 1;
  for (let i = 0; i < n; i++) x = x * 6364136223846793005 + 1442695040888963407;
  return x;
}

export function sieve(n: i32): i64 {
  const composite = new Uint8Array(n + 1);
  let count: i64 = 0;
  for (let i = 2; i <= n; i++) {
    if (composite[i]) continue;
    count++;
    for (let j = <i64>i * i; j <= n; j += i) composite[<i32>j] = 1;
  }
  return count;
}

export function sort(n: i32): i64 {
  const a = new Int32Array(n);
  let x: u32 = 12345;
  for (let i = 0; i < n; i++) {
    x = x * 1664525 + 1013904223;
    a[i] = <i32>(x >> 1);
  }
  a.sort();
  let h: i64 = 0;
  for (let i = 0; i < n; i++) h = h * 31 + a[i];
  return h;
}

export function words(n: i32): i64 {
  const counts = new Map<string, i32>();
  for (let i = 0; i < n; i++) {
    const key = "word" + ((i * 7919) % 97).toString();
    counts.set(key, counts.has(key) ? counts.get(key) + 1 : 1);
  }
  let h: i64 = 0;
  const keys = counts.keys();
  for (let i = 0; i < keys.length; i++) h = h * 31 + keys[i].length * counts.get(keys[i]);
  return h;
}

export function fill(n: i32): i64 {
  const p = heap.alloc(n);
  memory.fill(p, 7, n);
  const v: i64 = load<u8>(p + n - 1);
  heap.free(p);
  return v;
}

export function spin(n: i32): i64 {
  let x: i64 = n;
  while (true) {
    x ^= x << 13;
    x ^= x >>> 7;
    if (x == 0) return 0;
  }
}
