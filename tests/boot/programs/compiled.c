// SPDX-License-Identifier: MIT
/*
 * What tests/boot/programs/gcc.sh compiles: a little of everything that compilers have passes for.
 */
#include <complex.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node {
	struct node *left, *right;
	uint32_t key, weight;
	char text[12];
};

static uint32_t state = 2463534242u;

static uint32_t next(void)
{
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state;
}

static struct node *insert(struct node *n, struct node *new)
{
	if (!n)
		return new;
	if (new->weight > n->weight) { /* a treap: the heavier one is above */
		struct node **l = &new->left, **r = &new->right;

		while (n) {
			if (n->key < new->key) {
				*l = n;
				l = &n->right;
				n = n->right;
			} else {
				*r = n;
				r = &n->left;
				n = n->left;
			}
		}
		*l = *r = NULL;
		return new;
	}
	if (new->key < n->key)
		n->left = insert(n->left, new);
	else
		n->right = insert(n->right, new);
	return n;
}

static uint64_t walk(const struct node *n, uint64_t h)
{
	if (!n)
		return h;
	h = walk(n->left, h);
	for (const char *p = n->text; *p; p++)
		h = (h ^ (unsigned char)*p) * 1099511628211ull;
	return walk(n->right, h ^ n->key);
}

static uint64_t tree(void)
{
	static struct node nodes[20000];
	struct node *root = NULL;

	for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++) {
		nodes[i].key = next();
		nodes[i].weight = next();
		snprintf(nodes[i].text, sizeof(nodes[i].text), "%x", nodes[i].key % 99991);
		root = insert(root, &nodes[i]);
	}
	return walk(root, 14695981039346656037ull);
}

static double mean(int n, ...)
{
	va_list ap;
	double sum = 0;

	va_start(ap, n);
	for (int i = 0; i < n; i++)
		sum += i & 1 ? va_arg(ap, double) : va_arg(ap, int);
	va_end(ap);
	return sum / n;
}

static jmp_buf back;

static int deep(int n)
{
	char room[64];

	memset(room, n, sizeof(room));
	if (n == 0)
		longjmp(back, 42);
	return n > 0 ? deep(n - 1) + room[n % 64] : 0;
}

static long double polynomial(const double *c, int n, long double x)
{
	long double v = 0;

	while (n--)
		v = v * x + c[n];
	return v;
}

static unsigned __int128 power(unsigned __int128 b, unsigned e)
{
	unsigned __int128 v = 1;

	for (; e; e >>= 1, b *= b) {
		if (e & 1)
			v *= b;
	}
	return v;
}

int main(void)
{
	static float a[1024], b[1024];
	static const double c[] = { 1, -.5, .25, -.125, .0625 };
	unsigned __int128 p = power(0x123456789abcdefull, 77);
	double complex z = 0;
	float sum = 0;

	printf("tree %016llx\n", (unsigned long long)tree());
	for (int i = 0; i < 1024; i++)
		a[i] = (float)i / 7, b[i] = (float)(1024 - i);
	for (int round = 0; round < 100; round++)
		for (int i = 0; i < 1024; i++)
			a[i] = a[i] * .5f + b[i];
	for (int i = 0; i < 1024; i++)
		sum += a[i];
	printf("vector %a, mean %g, polynomial %.18Lg\n", sum, mean(4, 1, 2.5, 3, 4.5),
	       polynomial(c, 5, 1.1L));
	for (int i = 0; i < 50; i++)
		z = z * z + (-.1 + .65 * I);
	printf("complex %a %a, power %016llx%016llx\n", creal(z), cimag(z),
	       (unsigned long long)(p >> 64), (unsigned long long)p);
	if (setjmp(back) == 42)
		printf("back\n");
	else
		deep(1000);
	return 0;
}
