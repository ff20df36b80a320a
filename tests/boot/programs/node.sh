# SPDX-License-Identifier: MIT
node "$1/node.js"
