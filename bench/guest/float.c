// SPDX-License-Identifier: MIT
/*
 * Floating point. What is compiled twice (target_clones) has the same operations in the same order both times, and none of
 * them fused, so that the result doesn't depend on what the processor has.
 */
#include "work.h"

#include <math.h>
#include <string.h>

/* For processors with AVX2 (and FMA, of which no use is made), and for all. */
#define TWICE __attribute__((target_clones("avx2", "default")))

enum { SIDE = 256 };

TWICE static void multiply(double a[SIDE][SIDE], double b[SIDE][SIDE], double c[SIDE][SIDE])
{
	for (int i = 0; i < SIDE; i++)
		for (int k = 0; k < SIDE; k++)
			for (int j = 0; j < SIDE; j++)
				c[i][j] += a[i][k] * b[k][j];
}

uint64_t matrix(void)
{
	static double a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];

	for (int i = 0; i < SIDE; i++)
		for (int j = 0; j < SIDE; j++)
			a[i][j] = i + j, b[i][j] = i - j, c[i][j] = 0;
	for (int round = 0; round < 8; round++)
		multiply(a, b, c);
	return digest(1, c, sizeof(c));
}

uint64_t mandelbrot(void)
{
	uint64_t n = 0;

	for (int py = 0; py < 256; py++) {
		for (int px = 0; px < 256; px++) {
			double cr = px / 128.0 - 1.5, ci = py / 128.0 - 1.0, r = 0, i = 0;

			for (int k = 0; k < 100 && r * r + i * i < 4; k++, n++) {
				double t = r * r - i * i + cr;

				i = 2 * r * i + ci;
				r = t;
			}
		}
	}
	return n;
}

uint64_t nbody(void)
{
	double x[4] = { 0, 1, 0, -1.5 }, y[4] = { 0, 0, 2, 0 }, vx[4] = { 0, 0, .7, 0 },
	       vy[4] = { 0, 1, 0, -.8 };

	for (int step = 0; step < 300000; step++) {
		for (int i = 0; i < 4; i++) {
			for (int j = 0; j < 4; j++) {
				double dx = x[j] - x[i], dy = y[j] - y[i],
				       d2 = dx * dx + dy * dy + .01;
				double f = 1e-3 / (d2 * __builtin_sqrt(d2));

				vx[i] += dx * f, vy[i] += dy * f;
			}
		}
		for (int i = 0; i < 4; i++)
			x[i] += vx[i] * 1e-3, y[i] += vy[i] * 1e-3;
	}
	return bits(x[1] + y[2]);
}

/* A transform of N complex numbers, by halves: the sums of even and odd ones, which are themselves transforms. */
enum { LOG = 13, N = 1 << LOG };

static struct {
	double re[N], im[N];	   /* the numbers */
	double re2[N], im2[N];	   /* and where they go in a step */
	double cosine[N], sine[N]; /* the factors, those of each step side by side */
} f;

TWICE static void step(int span, int count, const double *c, const double *s, const double *re,
		       const double *im, double *re2, double *im2)
{
	/* Decimation in frequency, in the order of Stockham: `count` groups of 2 `span` interleaved transforms. */
	for (int g = 0; g < count; g++) {
		const double *ar = re + g * span, *ai = im + g * span, *br = ar + N / 2,
			     *bi = ai + N / 2;
		double *xr = re2 + 2 * g * span, *xi = im2 + 2 * g * span, *yr = xr + span,
		       *yi = xi + span;

		for (int k = 0; k < span; k++) {
			double dr = ar[k] - br[k], di = ai[k] - bi[k];

			xr[k] = ar[k] + br[k];
			xi[k] = ai[k] + bi[k];
			yr[k] = dr * c[g] - di * s[g];
			yi[k] = dr * s[g] + di * c[g];
		}
	}
}

/* Forward (sign -1) or back (1, times N). */
static void transform(double sign)
{
	for (int l = 0; l < LOG; l++) {
		int span = 1 << l, count = N / 2 >> l;

		for (int g = 0; g < count; g++) {
			f.cosine[g] = cos(M_PI * g / count);
			f.sine[g] = sign * sin(M_PI * g / count);
		}
		step(span, count, f.cosine, f.sine, f.re, f.im, f.re2, f.im2);
		memcpy(f.re, f.re2, sizeof(f.re));
		memcpy(f.im, f.im2, sizeof(f.im));
	}
}

uint64_t fft(void)
{
	uint64_t h = 1;
	double worst = 0;

	for (int i = 0; i < N; i++)
		f.re[i] = i % 37 - 18, f.im[i] = i % 11;
	for (int round = 0; round < 20; round++) {
		transform(-1);
		h = digest(h, f.re, sizeof(f.re));
		transform(1);
		for (int i = 0; i < N; i++)
			f.re[i] /= N, f.im[i] /= N;
	}
	for (int i = 0; i < N; i++)
		worst = fmax(worst, fabs(f.re[i] - (i % 37 - 18)) + fabs(f.im[i] - i % 11));
	return worst < 1e-9 ? h : 0;
}

uint64_t libm(void)
{
	double sum = 0;

	for (int i = 1; i < 300000; i++) {
		double x = i / 3000.0;

		sum += sin(x) * cos(3 * x) + exp(-x) + pow(x, 1.7) + log(x) + atan2(x, 3) +
		       tan(x / 100);
	}
	return bits(sum);
}
