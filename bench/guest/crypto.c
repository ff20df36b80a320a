// SPDX-License-Identifier: MIT
/* Debian's OpenSSL, which picks its code by what the processor has: AES in Galois counter mode, and SHA-256. */
#include "work.h"

#include <openssl/evp.h>

enum { BUFFER = 16384 };

uint64_t aes_gcm(void)
{
	static unsigned char text[BUFFER], out[BUFFER];
	static const unsigned char key[16] = "sixteen bytes..", iv[12] = "of a counter";
	unsigned char tag[16];
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	uint64_t h = 1;
	int n, ok = c != NULL;

	for (int i = 0; i < BUFFER; i++)
		text[i] = (unsigned char)(i * 7);
	ok = ok && EVP_EncryptInit_ex(c, EVP_aes_128_gcm(), NULL, key, iv);
	for (int i = 0; ok && i < 4096; i++)
		ok = EVP_EncryptUpdate(c, out, &n, text, BUFFER);
	ok = ok && EVP_EncryptFinal_ex(c, out, &n) &&
	     EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, sizeof(tag), tag);
	EVP_CIPHER_CTX_free(c);
	return ok ? digest(h, tag, sizeof(tag)) : 0;
}

uint64_t sha256(void)
{
	static unsigned char text[BUFFER];
	unsigned char sum[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	unsigned size = 0;
	int ok = c != NULL;

	for (int i = 0; i < BUFFER; i++)
		text[i] = (unsigned char)(i * 5);
	ok = ok && EVP_DigestInit_ex(c, EVP_sha256(), NULL);
	for (int i = 0; ok && i < 2048; i++)
		ok = EVP_DigestUpdate(c, text, BUFFER);
	ok = ok && EVP_DigestFinal_ex(c, sum, &size);
	EVP_MD_CTX_free(c);
	return ok ? digest(1, sum, size) : 0;
}
