// Reads the files named on standard input, up to an empty line, and keeps an index of their words.
const fs = require('fs');
const lines = require('readline').createInterface({input: process.stdin});
const paths = [];
const words = new Map();
const files = [];
lines.on('line', (path) => {
    if (path !== '')
        return void paths.push(path);
    for (const name of paths) {
        const text = fs.readFileSync(name, 'utf8');
        const file = {name, bytes: text.length, lines: []};
        for (const [number, line] of text.split('\n').entries()) {
            const tokens = line.match(/\w+/g) || [];
            file.lines.push({number, tokens: tokens.length, indent: line.search(/\S/)});
            for (const token of tokens) {
                if (!words.has(token))
                    words.set(token, []);
                words.get(token).push({file: files.length, number});
            }
        }
        files.push(file);
    }
    console.log('ready');
});
