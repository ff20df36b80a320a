// SPDX-License-Identifier: MIT
// What makes a Java machine compile, inline, deoptimize, collect garbage and synchronize.

import java.security.MessageDigest;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.IntBinaryOperator;
import java.util.stream.*;

public class Work {
	interface Shape { int area(int n); }
	record Square(int side) implements Shape { public int area(int n) { return side * side + n; } }
	record Strip(int a, int b) implements Shape { public int area(int n) { return a * b - n; } }
	record Disc(int r) implements Shape { public int area(int n) { return 3 * r * r ^ n; } }

	// One implementation is loaded, then two, then three: what was inlined has to go.
	static int shapes(int rounds) {
		int v = 0;
		for (int kinds = 1; kinds <= 3; kinds++) {
			for (int i = 0; i < rounds; i++) {
				Shape s = switch (i % kinds) {
				case 0 -> new Square(i & 15);
				case 1 -> new Strip(i & 31, kinds);
				default -> new Disc(i & 7);
				};
				v = v * 31 + s.area(i);
			}
		}
		return v;
	}

	static int faults(int rounds) {
		int caught = 0;
		int[] a = new int[10];
		for (int i = 0; i < rounds; i++) {
			try {
				String s = i % 1000 == 999 ? null : "x";
				a[i % 11] += s.length() + 100 / (i % 501);
			} catch (NullPointerException | ArithmeticException | ArrayIndexOutOfBoundsException e) {
				caught += e instanceof ArithmeticException ? 1 : e instanceof NullPointerException ? 1000 : 3;
			}
		}
		return caught * 31 + Arrays.hashCode(a);
	}

	static long vectors(int rounds) {
		double[] a = new double[1000], b = new double[1000];
		long sum = 0;
		for (int i = 0; i < a.length; i++) {
			a[i] = i * 0.5;
			b[i] = i % 7;
		}
		for (int r = 0; r < rounds; r++) {
			for (int i = 0; i < a.length; i++)
				a[i] = a[i] * 0.999 + b[i];
			sum += Double.doubleToLongBits(a[r % 1000]) >>> 20;
		}
		return sum + (long) (StrictMath.sin(a[3]) * 1e9);
	}

	static String digests(int rounds) throws Exception {
		byte[] data = new byte[4096];
		for (int i = 0; i < rounds; i++) {
			for (String name : new String[] { "MD5", "SHA-1", "SHA-256", "SHA-512" }) {
				byte[] sum = MessageDigest.getInstance(name).digest(data);
				System.arraycopy(sum, 0, data, (i * 64) % 4000, sum.length);
			}
		}
		return HexFormat.of().formatHex(data, 0, 8);
	}

	static int collections(int rounds) {
		Map<String, List<Integer>> groups = IntStream.range(0, rounds).boxed()
			.collect(Collectors.groupingBy(i -> "g" + i * 7919 % 211, TreeMap::new, Collectors.toList()));
		return groups.hashCode() + groups.values().stream().mapToInt(l -> l.stream().mapToInt(x -> x ^ 5).sum()).max().orElse(0);
	}

	static long threads(int rounds) throws Exception {
		ExecutorService pool = Executors.newFixedThreadPool(4);
		ConcurrentHashMap<Integer, Long> map = new ConcurrentHashMap<>();
		AtomicLong atomic = new AtomicLong();
		Object lock = new Object();
		long[] plain = new long[1];
		List<Future<Integer>> all = new ArrayList<>();
		for (int t = 0; t < 8; t++) {
			int id = t;
			all.add(pool.submit(() -> {
				for (int i = 0; i < rounds; i++) {
					map.merge(i % 97, (long) i, Long::sum);
					atomic.addAndGet(i ^ id);
					synchronized (lock) {
						plain[0] += i;
					}
				}
				return shapes(rounds);
			}));
		}
		long v = 0;
		for (Future<Integer> f : all)
			v = v * 7 + f.get();
		pool.shutdown();
		return v + map.values().stream().mapToLong(x -> x).sum() + atomic.get() + plain[0];
	}

	static int lambdas(int rounds) {
		IntBinaryOperator[] ops = { (a, b) -> a + b, (a, b) -> a ^ b, Math::max, (a, b) -> a * (b | 1), Integer::rotateLeft };
		int v = 1;
		for (int i = 0; i < rounds; i++)
			v = ops[i % (1 + i * 5 / rounds)].applyAsInt(v, i);
		return v;
	}

	static int garbage(int rounds) {
		int v = 0;
		Object[] keep = new Object[500];
		for (int i = 0; i < rounds; i++) {
			keep[i % 500] = new StringBuilder("n").append(i).append(new int[100].length).toString();
			v += keep[i * 7 % 500] == null ? 1 : keep[i * 7 % 500].hashCode();
		}
		return v;
	}

	public static void main(String[] args) throws Exception {
		int k = args.length > 0 ? 1 : 4;
		System.out.println("shapes " + shapes(30000 * k));
		System.out.println("faults " + faults(20000 * k));
		System.out.println("vectors " + vectors(500 * k));
		System.out.println("digests " + digests(50 * k));
		System.out.println("collections " + collections(10000 * k));
		System.out.println("threads " + threads(3000 * k));
		System.out.println("lambdas " + lambdas(50000 * k));
		System.out.println("garbage " + garbage(20000 * k));
	}
}
