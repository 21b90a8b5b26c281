// SPDX-License-Identifier: MIT
//
// CRC-32C: the processor's instruction on x86-64 (SSE 4.2, asked at run time) and on arm64 (where
// the build targets it), and a nibble table elsewhere, which is slow but small enough to stay in
// cache.
#include "shm/crc32c.h"

#include <stdbool.h>
#include <string.h>

#if defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#elif defined(__x86_64__)
#include <wmmintrin.h>
#endif

#define CRC32C_POLYNOMIAL 0x82f63b78u // reflected

// One row of a nibble table: the effect of four bits. Small enough to stand here and to stay in
// cache.
static const uint32_t crc32c_nibble[16] = {
	0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
	0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
	0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

uint32_t kvs_crc32c_portable(uint32_t crc, const void *data, size_t bytes)
{
	const unsigned char *at = data;
	crc = ~crc;
	while (bytes-- > 0) {
		crc ^= *at++;
		crc = crc >> 4 ^ crc32c_nibble[crc & 15];
		crc = crc >> 4 ^ crc32c_nibble[crc & 15];
	}
	return ~crc;
}

#if defined(__x86_64__)
// The instruction can begin each cycle and takes three, so three lanes are summed at once. A lane's
// sum counts for what stands behind it too: that many zero bytes are a multiplication by x^8n.
#define CRC32C_LANE_BYTES 1024u
#define CRC32C_OVER_ONE 0x170076fau // x^(8n-33) of one lane behind it, reflected: the product is
#define CRC32C_OVER_TWO 0xa51b6135u // one bit short, and reducing it shifts by 32; of two lanes

__attribute__((target("sse4.2,pclmul"))) static uint64_t crc32c_over(uint64_t state, uint32_t power)
{
	__m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)state),
					       _mm_cvtsi64_si128(power), 0);
	return __builtin_ia32_crc32di(0, (uint64_t)_mm_cvtsi128_si64(product));
}

static uint64_t crc32c_word(const unsigned char *at)
{
	uint64_t word;
	memcpy(&word, at, sizeof(word));
	return word;
}

// Three lanes, one behind the other.
__attribute__((target("sse4.2,pclmul"))) static uint64_t crc32c_lanes(uint64_t state,
								      const unsigned char *at)
{
	uint64_t second = 0;
	uint64_t third = 0;
	for (unsigned i = 0; i < CRC32C_LANE_BYTES; i += 8) {
		state = __builtin_ia32_crc32di(state, crc32c_word(at + i));
		second = __builtin_ia32_crc32di(second, crc32c_word(at + CRC32C_LANE_BYTES + i));
		third = __builtin_ia32_crc32di(third, crc32c_word(at + 2 * CRC32C_LANE_BYTES + i));
	}
	return crc32c_over(state, CRC32C_OVER_TWO) ^ crc32c_over(second, CRC32C_OVER_ONE) ^ third;
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_hardware(uint32_t crc, const void *data,
								  size_t bytes)
{
	const unsigned char *at = data;
	uint64_t state = ~crc;
	// unreached: a processor has it or not; test_crc32c sums in both ways and compares.
	bool lanes = bytes >= 3 * CRC32C_LANE_BYTES && __builtin_cpu_supports("pclmul");
	while (lanes && bytes >= 3 * CRC32C_LANE_BYTES) {
		state = crc32c_lanes(state, at);
		at += 3 * CRC32C_LANE_BYTES;
		bytes -= 3 * CRC32C_LANE_BYTES;
	}
	while (bytes >= 8) {
		state = __builtin_ia32_crc32di(state, crc32c_word(at));
		at += 8;
		bytes -= 8;
	}
	uint32_t low = (uint32_t)state;
	while (bytes-- > 0) {
		low = __builtin_ia32_crc32qi(low, *at++);
	}
	return ~low;
}

static bool crc32c_has_hardware(void)
{
	return __builtin_cpu_supports("sse4.2");
}
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
static uint32_t crc32c_hardware(uint32_t crc, const void *data, size_t bytes)
{
	const unsigned char *at = data;
	crc = ~crc;
	while (bytes >= 8) {
		uint64_t word;
		memcpy(&word, at, 8);
		crc = __crc32cd(crc, word);
		at += 8;
		bytes -= 8;
	}
	while (bytes-- > 0) {
		crc = __crc32cb(crc, *at++);
	}
	return ~crc;
}

static bool crc32c_has_hardware(void)
{
	return true;
}
#else
static uint32_t crc32c_hardware(uint32_t crc, const void *data, size_t bytes)
{
	return kvs_crc32c_portable(crc, data, bytes);
}

static bool crc32c_has_hardware(void)
{
	return false;
}
#endif

uint32_t kvs_crc32c(uint32_t crc, const void *data, size_t bytes)
{
	// unreached: here, too, it is the processor that decides.
	if (crc32c_has_hardware()) {
		return crc32c_hardware(crc, data, bytes);
	}
	return kvs_crc32c_portable(crc, data, bytes);
}
