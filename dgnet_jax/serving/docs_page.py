"""The interface for people: the OpenAPI document as one page, without scripts."""

from html import escape
from typing import Any

_EXAMPLES = {
  '/embed': 'curl -F images=@anna.jpg -F images=@ben.jpg {url}/embed',
  '/rank': 'curl -F images=@anna.jpg -F count=5 {url}/rank',
  '/swap': "curl -H 'Accept: image/png' -F structures=@anna.jpg -F appearances=@ben.jpg -o swapped.png {url}/swap",
  '/interpolate': 'curl -F images=@anna.jpg -F images=@ben.jpg -F change=pose {url}/interpolate',
  '/trace': 'curl -F structures=@anna.jpg -F appearances=@ben.jpg {url}/trace',
  '/gallery/{index}': 'curl -o match.png {url}/gallery/0',
  '/health': 'curl {url}/health',
  '/openapi.json': 'curl {url}/openapi.json',
}


def docs_page(document: dict[str, Any], url: str, *, needs_token: bool) -> str:
  """Returns a page that describes the interface.

  Args:
    document: the OpenAPI document.
    url: of the server, in examples.
    needs_token: whether examples send a token.
  """
  info = document['info']
  curl = 'curl -H "Authorization: Bearer $TOKEN"' if needs_token else 'curl'
  sections = [
    _section(path, method, operation, _EXAMPLES[path].replace('curl', curl, 1).replace('{url}', url))
    for path, operations in document['paths'].items()
    for method, operation in operations.items()
  ]
  return f"""<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>{escape(info['title'])} over HTTP</title>
  <link rel="icon" href="data:,">
  <link rel="stylesheet" href="docs.css">
</head>
<body>
<main>
<h1>{escape(info['title'])} over HTTP</h1>
<p>{escape(info['description'])} Programs read <a href="openapi.json">openapi.json</a>.</p>
{''.join(sections)}</main>
</body>
</html>
"""


def _section(path: str, method: str, operation: dict[str, Any], example: str) -> str:
  rows = ''
  content = operation.get('requestBody', {}).get('content', {})
  for schema in [content['application/json']['schema']] if content else []:
    for name, field in schema['properties'].items():
      kind = ', '.join(field['enum']) if 'enum' in field else 'images' if field['type'] == 'array' else 'number'
      default = f' (default: {field["default"]})' if 'default' in field else ''
      cells = (f'<code>{escape(name)}</code>', escape(kind), escape(field['description'] + default))
      rows += f'<tr>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'
  table = f'<table>\n<tr><th>field</th><th>values</th><th>meaning</th></tr>\n{rows}</table>\n' if rows else ''
  codes = ', '.join(f'{status} {response["description"]}' for status, response in operation['responses'].items())
  return f"""<section>
<h2><span>{method.upper()}</span> {escape(path)}</h2>
<p>{escape(operation['summary'])}. {escape(operation['description'])}</p>
{table}<pre tabindex="0">{escape(example)}</pre>
<p class="codes">{escape(codes.replace('200 The answer', '200'))}</p>
</section>
"""
