/**
 * `node write-corpus.js DOCUMENTS FOLDER`: what train.py reads. train.bin and held-out.bin: documents of 2,048 bytes, one after the
 * other; held-out.json: per document its lines as [kind, answer's first byte, end, distance to the fact or 0].
 */
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { corpusDocument } from '../corpus.ts';

const [documents, folder] = process.argv.slice(-2) as [string, string];
mkdirSync(folder, { recursive: true });

const train = openSync(join(folder, 'train.bin'), 'w');
for (let i = 0; i < Number(documents); i++) writeSync(train, corpusDocument(2 * i).text);
closeSync(train);

const heldOut = Array.from({ length: 256 }, (_, i) => corpusDocument(2 * i + 1));
writeFileSync(join(folder, 'held-out.bin'), heldOut.map(({ text }) => text).join(''));
const lines = heldOut.map((document) =>
  document.lines.map(({ kind, at, answerAt, text, distance }) => [
    kind,
    at + answerAt,
    at + text.length,
    distance ?? 0,
  ]),
);
writeFileSync(join(folder, 'held-out.json'), JSON.stringify(lines));
