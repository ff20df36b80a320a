// SPDX-License-Identifier: MIT
#include "fixture.h"

#include "base/bits.h"

static struct mock_board *of(struct board *b)
{
	return um_container_of(b, struct mock_board, board);
}

static void set_line(struct board *b, unsigned gsi, bool level)
{
	struct mock_board *m = of(b);

	assert_true(gsi < MOCK_GSIS);
	pthread_mutex_lock(&m->lock);
	m->rises[gsi] += level && !m->line[gsi];
	m->line[gsi] = level;
	pthread_mutex_unlock(&m->lock);
}

static void send_msi(struct board *b, u64 addr, u32 data)
{
	struct mock_board *m = of(b);

	pthread_mutex_lock(&m->lock);
	m->nmsi++;
	m->msi_addr = addr;
	m->msi_data = data;
	pthread_mutex_unlock(&m->lock);
}

static void stop(struct board *b, enum stop_reason reason, int code)
{
	struct mock_board *m = of(b);

	pthread_mutex_lock(&m->lock);
	m->reason = reason;
	m->code = code;
	pthread_mutex_unlock(&m->lock);
}

void mock_board_init(struct mock_board *b)
{
	memset(b, 0, sizeof(*b));
	b->board = (struct board){ set_line, send_msi, stop };
	pthread_mutex_init(&b->lock, NULL);
}

unsigned mock_rises(struct mock_board *b, unsigned gsi)
{
	unsigned n;

	pthread_mutex_lock(&b->lock);
	n = b->rises[gsi];
	pthread_mutex_unlock(&b->lock);
	return n;
}

unsigned mock_msis(struct mock_board *b)
{
	unsigned n;

	pthread_mutex_lock(&b->lock);
	n = b->nmsi;
	pthread_mutex_unlock(&b->lock);
	return n;
}

enum stop_reason mock_reason(struct mock_board *b)
{
	enum stop_reason r;

	pthread_mutex_lock(&b->lock);
	r = b->reason;
	pthread_mutex_unlock(&b->lock);
	return r;
}

static void *loop_main(void *arg)
{
	loop_run(arg);
	return NULL;
}

void loop_thread_start(struct loop_thread *t)
{
	assert_int_equal(pthread_create(&t->thread, NULL, loop_main, &t->loop), 0);
}

void loop_thread_stop(struct loop_thread *t)
{
	loop_stop(&t->loop);
	pthread_join(t->thread, NULL);
}

u8 in8(bus_fn fn, void *opaque, u64 offset)
{
	u8 v = 0;

	fn(opaque, offset, &v, 1, false);
	return v;
}

u16 in16(bus_fn fn, void *opaque, u64 offset)
{
	u16 v = 0;

	fn(opaque, offset, &v, 2, false);
	return v;
}

u32 in32(bus_fn fn, void *opaque, u64 offset)
{
	u32 v = 0;

	fn(opaque, offset, &v, 4, false);
	return v;
}

void out8(bus_fn fn, void *opaque, u64 offset, u8 v)
{
	fn(opaque, offset, &v, 1, true);
}

void out16(bus_fn fn, void *opaque, u64 offset, u16 v)
{
	fn(opaque, offset, &v, 2, true);
}

void out32(bus_fn fn, void *opaque, u64 offset, u32 v)
{
	fn(opaque, offset, &v, 4, true);
}

char *temp_file(const void *data, size_t len)
{
	char *path = strdup("/tmp/umbra-test-XXXXXX");
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), (ssize_t)len);
	close(fd);
	return path;
}
