# SPDX-License-Identifier: MIT
# Digests and ciphers of known data; keys that are made up sign what is verified.
i=0
while [ $i -lt 40000 ]; do echo "$i $((i * 7919 % 10007))"; i=$((i + 1)); done > data
for d in md5 sha1 sha224 sha256 sha384 sha512 sha3-256 sha3-512 shake256 blake2b512 blake2s256 sm3 ripemd160; do
	openssl dgst -$d data
done
openssl dgst -sha256 -hmac key data
openssl mac -cipher AES-128-CBC -macopt hexkey:000102030405060708090a0b0c0d0e0f -in data CMAC
key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f iv=0f0e0d0c0b0a09080706050403020100
for c in aes-128-cbc aes-192-ctr aes-256-ofb aes-256-cfb aes-128-ecb aes-256-ctr camellia-256-cbc aria-256-ctr chacha20 sm4-cbc des-ede3-cbc; do
	case $c in
	*-128-*|sm4*) k=$(echo $key | cut -c1-32) ;;
	*-192-*|des*) k=$(echo $key | cut -c1-48) ;;
	*) k=$key ;;
	esac
	v=$iv
	case $c in
	des*) v=$(echo $iv | cut -c1-16) ;;
	*ecb) v= ;;
	esac
	openssl enc -$c -K $k ${v:+-iv $v} -in data -out data.$c && openssl enc -d -$c -K $k ${v:+-iv $v} -in data.$c | cmp - data &&
		sha256sum data.$c
done
for a in "RSA -pkeyopt rsa_keygen_bits:2048" "EC -pkeyopt ec_paramgen_curve:P-256" "EC -pkeyopt ec_paramgen_curve:P-384" \
	"EC -pkeyopt ec_paramgen_curve:secp256k1"; do
	openssl genpkey -algorithm $a -out key.pem 2>/dev/null && openssl dgst -sha256 -sign key.pem -out signature data &&
		openssl pkey -in key.pem -pubout -out public.pem && openssl dgst -sha256 -verify public.pem -signature signature data
done
for a in ED25519 ED448; do
	head -c 1000 data > little
	openssl genpkey -algorithm $a -out key.pem && openssl pkeyutl -sign -rawin -inkey key.pem -in little -out signature &&
		openssl pkeyutl -verify -rawin -inkey key.pem -in little -sigfile signature
done
openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt pass:secret -kdfopt salt:saltsalt -kdfopt iter:20000 PBKDF2
openssl prime 170141183460469231731687303715884105727 170141183460469231731687303715884105725
