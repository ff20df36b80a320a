// SPDX-License-Identifier: MIT
// What makes a JavaScript engine write, patch and throw away machine code.
'use strict';
const crypto = require('crypto');
const { Worker, isMainThread, workerData } = require('worker_threads');
const hash = v => crypto.createHash('sha256').update(typeof v === 'string' ? v : JSON.stringify(v)).digest('hex').slice(0, 16);

// Hot, then called with what it was not compiled for, several times over: optimize, deoptimize.
function hotAndCold() {
	const sum = (a, b) => a + b;
	const seen = [];
	let v = 0;
	for (const other of [1.5, 'text', { valueOf: () => 7 }, [1, 2], 1n]) {
		for (let i = 0; i < 200000; i++)
			v = sum(v, i) | 0;
		try {
			seen.push(String(sum(other, other)));
		} catch (e) {
			seen.push(e.name);
		}
	}
	return [v, seen];
}

// Objects of changing shapes at one place.
function shapes() {
	const make = [i => ({ a: i, b: 1 }), i => ({ b: 2, a: i }), i => ({ c: 3, a: i, d: 4 }), i => [i].map(a => ({ a }))[0],
		i => new (class { constructor() { this.a = i; } })()];
	const get = o => o.a;
	let v = 0;
	for (let kinds = 1; kinds <= make.length; kinds++)
		for (let i = 0; i < 50000; i++)
			v = (v * 31 + get(make[i % kinds](i))) >>> 0;
	return v;
}

// Thousands of functions that are compiled, run hot and dropped.
function generated() {
	let v = 0;
	for (let n = 0; n < 400; n++) {
		const f = new Function('x', `let s = ${n}; for (let i = 0; i < 3000; i++) s = (s * ${n * 2 + 1} + (x ^ i)) | 0; return s;`);
		v = (v + f(n) + f(v)) | 0;
	}
	return v;
}

// Regular expressions are compiled, too.
function expressions() {
	let text = '';
	for (let i = 0; i < 20000; i++)
		text += `k${i % 97}=${(i * 7919) % 1009};` + (i % 13 ? '' : '\n');
	const found = [...text.matchAll(/k(\d+)=(\d*?7\d*);(?=k1)/g)].map(m => +m[1] * +m[2]);
	let many = 0;
	for (let n = 0; n < 97; n++)
		many += (text.match(new RegExp(`^k${n}=(?:\\d+);.*k${(n * 5) % 97}=`, 'gm')) || []).length;
	return [found.length, found.reduce((a, b) => (a * 31 + b) >>> 0, 0), many, hash(text.replace(/(\d+)=(\d+)/g, '$2:$1'))];
}

// (i32, i32) -> i32: sum of i * k for i below n, by a loop; first by the quick compiler, then by the optimizing one.
function webassembly() {
	const code = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0,
		10, 38, 1, 36, 1, 2, 127, 3, 64, 32, 2, 32, 0, 72, 4, 64, 32, 3, 32, 2, 32, 1, 108, 106, 33, 3, 32, 2, 65, 1, 106, 33, 2,
		12, 1, 11, 11, 32, 3, 11]);
	const f = new WebAssembly.Instance(new WebAssembly.Module(code)).exports.f;
	let v = 0;
	for (let i = 0; i < 3000; i++)
		v = (v * 3 + f(1000, i)) | 0;
	return v;
}

function numbers() {
	const a = new Float64Array(4096), b = new Int32Array(a.buffer);
	for (let round = 0; round < 40; round++)
		for (let i = 0; i < a.length; i++)
			a[i] = Math.sqrt(i * round + 1) / (1 + Math.abs(Math.sin(a[i] || i)));
	let f = 1n;
	for (let i = 1n; i < 600n; i++)
		f *= i;
	return [b.reduce((x, y) => (x * 31 + y) | 0, 0), hash(f.toString())];
}

function collections() {
	const words = [];
	for (let i = 0; i < 40000; i++)
		words.push(((i * 2654435761) >>> 0).toString(36));
	const counts = new Map();
	for (const w of words)
		counts.set(w.slice(0, 2), (counts.get(w.slice(0, 2)) || 0) + 1);
	words.sort((x, y) => (x < y ? -1 : x > y ? 1 : 0));
	const back = JSON.parse(JSON.stringify(words.map((w, i) => ({ w, i, n: [i, i / 3] }))));
	return [hash(words.join()), counts.size, back.length, hash(back.filter(o => o.i % 3).map(o => o.w + o.n).join())];
}

function* walk(n) {
	if (n > 0) {
		yield* walk(n - 1);
		yield n;
		yield* walk(n - 2);
	}
}

const tests = { hotAndCold, shapes, generated, expressions, webassembly, numbers, collections, generators: () => [...walk(17)].length };

if (isMainThread) {
	for (const [name, f] of Object.entries(tests))
		console.log(name, JSON.stringify(f()));
	// The same in threads, which compile and collect garbage side by side.
	const shared = new Int32Array(new SharedArrayBuffer(64));
	const workers = ['shapes', 'generated', 'expressions'].map(name => new Promise((done, failed) => {
		const w = new Worker(__filename, { workerData: { name, shared } });
		w.on('message', done);
		w.on('error', failed);
	}));
	Promise.all(workers).then(answers => {
		console.log('threads', JSON.stringify(answers), shared[0]);
	});
} else {
	for (let i = 0; i < 10000; i++)
		Atomics.add(workerData.shared, 0, 1);
	require('worker_threads').parentPort.postMessage(tests[workerData.name]());
}
