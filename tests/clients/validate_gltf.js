// Prints the Khronos validator's report of a GLB or glTF file: node validate_gltf.js FILE
const fs = require("fs");
const validator = require("gltf-validator");
validator
  .validateBytes(new Uint8Array(fs.readFileSync(process.argv[2])), { maxIssues: 100 })
  .then((report) => console.log(JSON.stringify(report)), (error) => { console.error(String(error)); process.exit(1); });
